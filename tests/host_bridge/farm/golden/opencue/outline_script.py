"""Submits a Faceplate render to OpenCue: python outline_script.py (with OpenCue's packages)."""

import outline
import outline.cuerun
from outline.modules.shell import Shell

NAME = 'sh010_toon'
FRAMES = '1001-1049x2'
CHUNK = 5
ANALYSE = 'faceplate run BUNDLE/job.json --analyse --shot-file BUNDLE/shot.txt --local --progress farm'
RENDER = 'faceplate run BUNDLE/job.json --chunk #FRAMESPEC# --shot-file BUNDLE/shot.txt --local --progress farm'
TAGS = ['comp']
LAUNCH = {'show': 'hero', 'shot': 'sh010', 'priority': 60}


def build():
    """The outline: an analysis of the whole shot, then the frames in chunks."""
    ol = outline.Outline(NAME, frame_range=FRAMES, show=LAUNCH.get("show"), shot=LAUNCH.get("shot"))
    analyse = Shell("analyse", command=ANALYSE, range='1001', tags=TAGS)
    render = Shell("render", command=RENDER, range=FRAMES, chunk=CHUNK, tags=TAGS)
    render.depend_all(analyse)
    ol.add_layer(analyse)
    ol.add_layer(render)
    return ol


if __name__ == "__main__":
    for job in outline.cuerun.launch(build(), use_pycuerun=False, **LAUNCH):
        print(job.data.name)
