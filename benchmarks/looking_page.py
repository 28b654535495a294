"""The other side of `looking`: a plain static page that shows ready-made PNG files, and a server for it.

It is the way of pattern-lens 0.6 at its best: one palette PNG a head, as small as Pillow makes it, no framework, nothing fetched
but the pictures, and the same HTTP server as ours.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

_PAGE: Final = """<!doctype html><meta charset="utf-8"><title>Heads</title>
<style>body{margin:0;background:#fff}img{width:80px;height:80px;margin:2px;image-rendering:pixelated}</style>
<body><script type="module">
const heads = HEADS;
const images = heads.map((head) => { const image = new Image(); image.alt = head; return image; });
async function show(prompt) {
  images.forEach((image, i) => { image.src = `${prompt}/${heads[i]}.png`; });
  await Promise.all(images.map((image) => image.decode()));
  await new Promise((painted) => requestAnimationFrame(painted));
  performance.mark("gallery");
  document.documentElement.dataset.ready = String(images.length);
}
document.body.append(...images);
window.show = show;
show(new URLSearchParams(location.search).get("prompts"));
</script>"""


def write_page(folder: Path, patterns: xr.DataArray, prompt: str) -> None:
    """Add the pictures of one prompt, dims (layer, head, query, key), and the page."""
    from matplotlib import colormaps
    from PIL import Image

    colours = (colormaps["Blues"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    (folder / prompt).mkdir(parents=True)
    names = []
    for layer in range(patterns.sizes["layer"]):
        for head in range(patterns.sizes["head"]):
            values = patterns[layer, head].to_numpy()
            image = Image.fromarray(np.rint(values * 255).astype(np.uint8), mode="P")
            image.putpalette(colours.tobytes())
            buffer = io.BytesIO()
            image.save(buffer, format="png", optimize=True)
            names.append(f"L{layer}H{head}")
            (folder / prompt / f"{names[-1]}.png").write_bytes(buffer.getvalue())
    (folder / "index.html").write_text(_PAGE.replace("HEADS", json.dumps(names)), "utf-8")


def main(folder: str) -> None:
    """Serve a folder; the first line printed is its address as JSON."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.staticfiles import StaticFiles

    from pattern_lens.server.running import HOST, bound

    listener = bound(HOST, 0)  # as ours: small answers are sent at once
    port = listener.getsockname()[1]
    print(json.dumps({"address": f"http://{HOST}:{port}/"}, indent=1), flush=True)
    app = Starlette()
    app.mount("/", StaticFiles(directory=Path(folder), html=True))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
