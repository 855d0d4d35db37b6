"""The quick start of the README runs as it stands, with fewer epochs."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.filterwarnings("ignore")
def test_the_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert "model.train()" in code
    names: dict[str, object] = {}
    exec(code.replace("model.train()", "model.train(max_epochs=2, enable_progress_bar=False)"), names)
    torch.set_num_threads(1)  # numba's threading, which neighbours start, sets torch's number of threads back
    plt.close("all")
    complete = names["complete"]
    assert {m: a.n_obs for m, a in complete.mod.items()} == {"rna": 300, "mirna": 300, "rppa": 300}
    assert {"sd", "lower", "upper"} <= set(names["proteins"].layers)
    assert "<h1>CoVAE of rna, mirna and rppa</h1>" in (tmp_path / "report.html").read_text()
