"""The command line: ``omicvae <command>``.

A command parses its arguments, calls the function that does the work and prints what it returned. Mistakes of the user
end with one sentence and exit code 1 (2 where the command itself was mistyped).
"""

from omicvae.cli import _benchmark, _check, _demo, _impute, _report, _train
from omicvae.cli._app import app

__all__ = ["app"]
