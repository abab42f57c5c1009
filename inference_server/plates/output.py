"""Can an output be written? Asked before a job costs anything: format, codec, folder."""

from __future__ import annotations

import os
import tempfile

from host_bridge.errors import PlateError, unknown_name
from inference_server.plates.atomic import clean_leftovers, write_error
from inference_server.plates.exrheader import COMPRESSIONS
from inference_server.plates.images import format_of
from inference_server.plates.sequence import Pattern


def check_format(output: Pattern, source: str, compression: str) -> None:
    """See that frames read from the file `source` can be written as `output` says: as EXR, or as what they are.

    Raises PlateError `plate.format`, also for a compression that is not "", "keep" or an EXR codec.
    """
    wanted, found = format_of(output.path(1)), format_of(source)
    if wanted != "exr" and (wanted != found or wanted == "jpeg"):
        raise PlateError(
            "plate.format",
            f"{found} plates are not written as {wanted}",
            value=output.text,
            path=output.text,
            remedy="Write .exr" + (f", or .{found} as the plate." if found not in ("exr", "jpeg") else "."),
        )
    if compression and compression != "keep" and compression not in COMPRESSIONS:
        raise unknown_name("plate.format", "compression", compression, ["keep", *COMPRESSIONS])


def prepare_folder(output: Pattern) -> None:
    """Make the folder, see that files can be made in it, and remove what dead writers left there.

    Raises PlateError `plate.permission`, `plate.disk_full` or `plate.write_failed`.
    """
    folder = output.folder or "."
    above = folder
    while above and not os.path.lexists(above):
        above = os.path.dirname(above)
    if above and not os.path.isdir(above):
        raise PlateError(
            "plate.write_failed",
            f"{above} is a file, so no folder can be made there",
            value=above,
            path=output.text,
            remedy="Choose another output folder.",
        )
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            clean_leftovers(folder)
    except OSError as error:
        raise write_error(error, output.text, None) from error
