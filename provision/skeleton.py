"""A working lab of a person's own: a folder made from the files in ``templates/``, to be changed from there."""

from __future__ import annotations

import errno
import json
import re
import shlex
import shutil
from pathlib import Path

import jinja2

from go_labs import spec
from vm.errors import DiskFullError, UsageError

TEMPLATES = Path(__file__).resolve().parent / "templates"

FILES = ("go.mod", "lab.toml", "main.go", "main_test.go", "analysis.py")
"""What a lab of one's own is made of, in the order in which one reads it."""

_PLAIN = re.compile(r"[\w./@+~-]+", re.ASCII)


def create(text: str, labs: Path = spec.LABS) -> Path:
    """Make the folder ``text`` (a bare name: in the current folder) with a lab that can be run, and return it.

    :param labs: folder of the Go module ``kmlab``, which the lab's ``go.mod`` names.
    :raises UsageError: the name is none for a lab, is one of the repository's, is there already, or its parent is not.
    :raises DiskFullError: no space is left.
    """
    folder = Path(text).expanduser().absolute()
    name = _checked(folder.name)
    made = {file: _render(file, name, labs) for file in FILES}
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise UsageError(f"{text} is there already", "give another name; nothing was changed") from error
    except OSError as error:
        raise UsageError(f"{text} cannot be made: {error.strerror}", "the folder it lies in must be there") from error
    try:
        for file, content in made.items():
            (folder / file).write_text(content, "utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"no space left for {folder}", "free some space and try again") from error
        raise UsageError(f"{folder} cannot be written: {error.strerror}", "choose another place") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def show(folder: Path) -> None:
    """Print on stdout what was made, and the two commands that try it."""
    here = Path.cwd()
    place = f"./{folder.relative_to(here)}" if folder.is_relative_to(here) else str(folder)
    print(f"{place}: {', '.join(FILES)}")
    print(f"run it:  invoke lab {shlex.quote(place)} --kernel 6.1")
    print(f"test it: cd {shlex.quote(place)} && go test")


def _checked(name: str) -> str:
    """Return ``name`` if a lab may be called so, and none here is.

    :raises UsageError: it may not; a name that would do is suggested.
    """
    if not spec.NAME.fullmatch(name) or name in spec.RESERVED:
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:31] or "my_lab"
        meant = f"my_{plain}"[:31] if plain in spec.RESERVED else plain
        rule = "a lower-case letter, then letters, digits or _, 31 at most"
        raise UsageError(f"{name!r} is no name for a lab", f"{rule}; for example {meant}")
    if name in spec.names():
        raise UsageError(f"{name} is a lab of the repository", f"call yours something else, my_{name}")
    return name


def _render(file: str, name: str, labs: Path) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  (Go, TOML and Python, not HTML; the name is plain, see _checked)
        keep_trailing_newline=True,
    )
    # A path with a space is quoted in go.mod (Go Modules Reference, "Lexical elements").
    path = str(labs) if _PLAIN.fullmatch(str(labs)) else json.dumps(str(labs), ensure_ascii=False)
    return environment.get_template(f"{file}.j2").render(name=name, labs=path)
