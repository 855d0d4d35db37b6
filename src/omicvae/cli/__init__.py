"""The command line: ``omicvae <command>``.

A command parses its arguments, calls the function that does the work and prints what it returned. Mistakes of the user
end with one sentence and exit code 1 (2 where the command itself was mistyped).

What takes seconds to import (torch, scvi-tools and all that rests on them) is imported inside commands, so that help is
there at once.
"""

from omicvae.cli import _benchmark, _check, _demo, _impute, _report, _train
from omicvae.cli._app import app

__all__ = ["app"]
