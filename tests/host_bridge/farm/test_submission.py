"""Submissions: what is written for each farm, and what its own tools say of it."""

from __future__ import annotations

import json
import os
import runpy
import stat
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from outline import cuerun

from host_bridge.errors import FarmError, RequestError
from host_bridge.farm import FarmOptions, submit
from host_bridge.farm.jobfile import chunk_of, mapped, read_job, read_openjd_rules, read_shot
from host_bridge.framerange import parse_frames
from host_bridge.jobspec import JobSpec, MaskSpec, PlateSpec

GOLDEN = Path(__file__).parent / "golden"
BUNDLE = "BUNDLE"  # stands for the temporary folder in golden files

JOB = JobSpec(
    kind="render",
    plate=PlateSpec("/shows/hero/sh010/plate.%04d.exr", colorspace="ACEScg"),
    frames="1001-1049x2",
    effect="look",
    params={"degree": {"keys": [[1001, 0.0], [1049, 1.0]]}, "style": "cartoon"},
    output="/shows/hero/sh010/toon/toon v2.%04d.exr",
    mask=MaskSpec("/shows/hero/sh010/roto.%04d.exr", mode="subtract"),
)
OPTIONS = FarmOptions(
    chunk=5, priority=60, pool="comp", secondary_pool="all", group="gpu", show="hero", shot="sh010", name="sh010 toon"
)


def written(folder: Path, farm: str, job: JobSpec = JOB, **changes: Any) -> Path:
    submit(job, farm, replace(OPTIONS, bundle=str(folder), write_only=True, **changes))
    return folder


@pytest.mark.parametrize("farm", ["openjd", "opencue", "deadline"])
def test_what_is_written_is_the_golden_submission(farm: str, tmp_path: Path) -> None:
    found = {p.name: p.read_text().replace(str(tmp_path), BUNDLE) for p in written(tmp_path, farm).iterdir()}
    folder = GOLDEN / farm
    if os.environ.get("FACEPLATE_WRITE_GOLDEN"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in found.items():
            (folder / name).write_text(text)
    assert found == {p.name: p.read_text() for p in folder.iterdir()}


def test_a_job_file_is_read_back_and_mapped(tmp_path: Path) -> None:
    rules = (("/shows", "Z:/shows"),)
    file = read_job(written(tmp_path, "deadline", path_maps=rules) / "job.json")
    assert file.path_maps == rules
    assert replace(file.job, frames="") == replace(JOB, frames="")
    there = mapped(file.job, file.path_maps)
    assert there.plate.pattern == "Z:/shows/hero/sh010/plate.%04d.exr"
    assert there.mask is not None
    assert there.mask.pattern == "Z:/shows/hero/sh010/roto.%04d.exr"
    assert there.output.startswith("Z:/")


@pytest.mark.parametrize(
    ("chunk", "frames"), [("1001-1009", "1001-1009x2"), ("1001-1009:2", "1001-1009x2"), ("1048-1060", "1049")]
)
def test_a_chunk_is_those_of_the_jobs_frames(chunk: str, frames: str) -> None:
    assert chunk_of(JOB, chunk).frames == frames


def test_a_chunk_without_frames_of_the_job_is_refused() -> None:
    with pytest.raises(FarmError, match="none of the frames") as caught:
        chunk_of(JOB, "1002")
    assert caught.value.code == "farm.chunk"


def test_a_job_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="know the frames"):
        written(tmp_path, "openjd", replace(JOB, frames=""))


@pytest.mark.parametrize("text", ["", "[]", '{"faceplate": 2}', '{"faceplate": 1, "job": {}}'])
def test_a_damaged_job_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(FarmError) as caught:
        read_job(path)
    assert (caught.value.code, caught.value.path) == ("farm.job_file", str(path))


def test_a_task_before_its_analysis_says_so(tmp_path: Path) -> None:
    with pytest.raises(FarmError, match="left no shot id") as caught:
        read_shot(tmp_path / "shot.txt")
    assert "analysis task first" in caught.value.remedy


def test_openjd_path_mapping_rules_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text("{}")
    assert read_openjd_rules(path) == ()
    rule = {"source_path_format": "POSIX", "source_path": "/shows", "destination_path": "/mnt/shows"}
    path.write_text(json.dumps({"version": "pathmapping-1.0", "path_mapping_rules": [rule]}))
    assert read_openjd_rules(path) == (("/shows", "/mnt/shows"),)


def test_opencue_takes_the_script(tmp_path: Path) -> None:
    """PyOutline itself turns the script into the job specification that Cuebot gets."""
    script = runpy.run_path(str(written(tmp_path, "opencue") / "outline_script.py"))
    spec = cuerun.OutlineLauncher(script["build"](), **script["LAUNCH"]).serialize(use_pycuerun=False)
    root = ET.fromstring(spec)
    layers = {layer.attrib["name"]: layer for layer in root.iter("layer")}
    frames = {name: parse_frames(str(layer.findtext("range"))) for name, layer in layers.items()}
    assert frames == {"analyse": (1001,), "render": parse_frames(JOB.frames)}
    assert layers["render"].findtext("chunk") == "5"
    assert f"--chunk #FRAMESPEC# --shot-file {tmp_path}/shot.txt --local" in str(layers["render"].findtext("cmd"))
    assert [d.findtext("deplayer") for d in root.iter("depend")] == ["render"]
    assert [d.findtext("onlayer") for d in root.iter("depend")] == ["analyse"]


def _deadline(folder: Path, body: str) -> None:
    folder.mkdir()
    command = folder / "deadlinecommand"
    command.write_text(f"#!/bin/sh\n{body}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)


def test_deadline_gets_the_analysis_first_and_the_render_depending_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    _deadline(tmp_path / "bin", f'echo "$1 $2" >> {calls}; echo "Result=Success"; echo "JobID=id$(wc -l < {calls})"')
    monkeypatch.setenv("DEADLINE_PATH", str(tmp_path / "bin"))
    bundle = tmp_path / "bundle"
    done = submit(JOB, "deadline", replace(OPTIONS, bundle=str(bundle)))
    assert done.said == "analysis id1, render id2"
    assert calls.read_text().splitlines() == [
        f"{bundle}/analyse_job_info.txt {bundle}/analyse_plugin_info.txt",
        f"{bundle}/render_job_info.txt {bundle}/render_plugin_info.txt",
    ]
    assert "JobDependencies=id1\n" in (bundle / "render_job_info.txt").read_text()


def test_a_farm_that_refuses_or_is_not_there_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("DEADLINE_PATH", raising=False)
    for farm, name in (("deadline", "DEADLINE_PATH"), ("openjd", "openjd run")):
        with pytest.raises(FarmError) as caught:
            submit(JOB, farm, replace(OPTIONS, bundle=str(tmp_path / farm)))
        assert caught.value.code == "farm.missing"
        assert name in caught.value.remedy
        assert (tmp_path / farm / "job.json").is_file()
    _deadline(tmp_path / "bin", 'echo "Error: the pool comp does not exist"; exit 1')
    monkeypatch.setenv("DEADLINE_PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(FarmError, match="pool comp does not exist"):
        submit(JOB, "deadline", replace(OPTIONS, bundle=str(tmp_path / "again")))
