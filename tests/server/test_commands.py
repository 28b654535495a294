"""The commands of the web application: what they print, how they end, and what they refuse."""

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from pattern_lens.cli import main
from pattern_lens.indexes import write_html_index
from pattern_lens.server.__main__ import main as old_main
from tests.server.conftest import HASHES, write


def started(*argv: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *map(str, argv)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str]:
    process.send_signal(how)
    _, err = process.communicate(timeout=20)
    return process.returncode, err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_it_is_told_to_end(rich_file, how):
    process = started("pattern_lens", "serve", rich_file, "--port", "0", "--json")
    said = ""
    while not said.endswith("}\n"):
        said += process.stdout.readline()
    found = json.loads(said)
    assert found["address"] == f"http://127.0.0.1:{found['port']}/"
    assert found["files"] == [str(rich_file)]
    with urllib.request.urlopen(found["address"] + "api/index.json") as reply:  # noqa: S310
        assert json.load(reply)["models"][0]["file"] == "rich.h5"
    assert ended(process, how) == (0, "")


def test_the_words_of_0_6(rich_file):
    process = started(
        "pattern_lens.server", "--path", rich_file.parent, "--port", "0", "--rewrite-index"
    )
    line = process.stdout.readline()
    assert line.startswith("serving at http://127.0.0.1:")
    with urllib.request.urlopen(line.split()[2]) as reply:  # noqa: S310
        assert b"<!doctype html>" in reply.read()
    status, err = ended(process, signal.SIGINT)
    assert status == 0
    assert "--rewrite-index is not needed any more" in err


def test_the_function_of_0_6(rich_file):
    code = f"from pattern_lens.server import main; main({str(rich_file.parent)!r}, port=0)"
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("serving at http://127.0.0.1:")
    assert ended(process, signal.SIGINT) == (0, "")


@pytest.fixture
def taken() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_port_in_use(rich_file, taken, capsys):
    assert main(["serve", str(rich_file), "--port", str(taken)]) == 2
    assert (
        f"cannot use port {taken}: another program answers there; give another one"
        in capsys.readouterr().err
    )
    assert old_main([str(rich_file), "--port", str(taken)]) == 2
    assert "or --port 0 for one that is free" in capsys.readouterr().err


def test_what_cannot_be_served(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "none.h5")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["serve"])
    assert "give a file, or a folder with --path" in capsys.readouterr().err
    (tmp_path / "gpt2/prompts/x").mkdir(parents=True)
    (tmp_path / "gpt2/prompts/x/prompt.json").write_text("{}")
    assert old_main(["--path", str(tmp_path)]) == 2
    assert f"'pattern-lens import {tmp_path}'" in capsys.readouterr().err


def test_without_the_extra(rich_file, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "starlette", raising=False)
    assert main(["serve", str(rich_file), "--port", "0"]) == 2
    assert (
        "uvicorn is not installed; run: pip install 'pattern-lens[web]'" in capsys.readouterr().err
    )
    assert old_main([str(rich_file), "--port", "0"]) == 2
    assert "pip install 'pattern-lens[web]'" in capsys.readouterr().err


def test_exports_need_no_web_framework(rich_file, tmp_path):
    code = (
        "import sys; sys.modules['starlette'] = sys.modules['uvicorn'] = None\n"
        "from pattern_lens.cli import main\n"
        f"assert main(['export-site', {str(rich_file)!r}, {str(tmp_path / 'site')!r}, '--quiet']) == 0\n"
        f"assert main(['export-html', {str(rich_file)!r}, '-o', {str(tmp_path / 'p.html')!r}, '--quiet']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_export_site(rich_file, tmp_path, capsys):
    folder = tmp_path / "site"
    assert main(["export-site", str(rich_file), str(folder), "--heads", "L0", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("6 prompts in ")
    assert (
        main(["export-site", str(rich_file), str(folder), "--heads", "L0", "--quiet", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["n_present"] == 6


def test_export_html(rich_file, tmp_path, capsys):
    page = tmp_path / "page.html"
    argv = [
        "export-html",
        str(rich_file),
        f"--prompts={HASHES[2]}",
        "--heads",
        "L0",
        "-o",
        str(page),
    ]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"1 prompt, 4 heads in {page}, ")
    assert err.startswith("the page will have about ")
    assert main([*argv, "--limit", "0.1", "--quiet"]) == 2
    assert "choose fewer prompts or fewer heads" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*argv, "--limit", "nan"])


def test_an_index_beside_the_data(tmp_path):
    write(tmp_path / "a.h5", hashes=[], lengths=())
    write_html_index(tmp_path, cfg_single={"data": {"attentionFilename": "attn.png"}})
    page = (tmp_path / "index.html").read_text()
    assert "python -m pattern_lens.server --path ." in page
    assert "<li>a.h5</li>" in page
    assert (tmp_path / "single.html").read_text() == page
    assert json.loads((tmp_path / "sg_cfg.json").read_text()) == {
        "data": {"attentionFilename": "attn.png"}
    }
    assert not (tmp_path / "pl_cfg.json").exists()
    (tmp_path / "index.html").write_text("mine")
    write_html_index(path=tmp_path)
    assert (tmp_path / "index.html").read_text() == "mine"
    (tmp_path / "<b>.h5").touch()
    write_html_index(tmp_path)
    assert "&lt;b&gt;.h5" in (tmp_path / "single.html").read_text()


def test_the_application_is_in_the_package():
    from pattern_lens.server.pages import STATIC, Application

    files = Application().files()
    assert {"index.html", "app.css", "js/main.js"} <= set(files)
    assert STATIC.is_relative_to(Path(importlib.util.find_spec("pattern_lens").origin).parent)
