"""slimnet reproduce fig4 and supp-fig3: simulated, drawn, printed, and not simulated twice."""

import dataclasses
import json

import pytest
import slimnet_cli
from slimnet_cli.output import simulated_figures

from slimnet.errors import UsageError
from slimnet.reproduction.scalars import LowGradients, ScalarFigure, figure_4


@pytest.fixture
def made(monkeypatch):
    """Stands in for the simulation with a short one that claims to be as long; holds the names that were asked for."""
    figure = figure_4(LowGradients(iterations=5, seeds=2), strengths=(1e-3,))
    figure = dataclasses.replace(figure, gradients=LowGradients())
    asked = []
    monkeypatch.setattr(simulated_figures, "figure_of", lambda name: asked.append(name) or figure)
    return asked


def test_a_simulated_figure_is_drawn_printed_and_kept(made, tmp_path, capsys):
    assert slimnet_cli.run(["reproduce", "fig4", "-o", str(tmp_path / "out")]) == 0
    assert "| Adam with L2 |" in capsys.readouterr().out
    assert "λ = 0.001" in (tmp_path / "out" / "fig4.svg").read_text(encoding="utf-8")
    assert 'id="fig4"' in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert slimnet_cli.run(["reproduce", "fig4", "--json", "-o", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)["simulated"]["fig4"]
    assert ScalarFigure.from_dict(found).order(1e-3)
    assert made == ["fig4"], "what is kept is not simulated again"


def test_a_kept_figure_of_other_settings_is_simulated_anew(made, tmp_path):
    (tmp_path / "supp-fig3.json").write_text("[]")
    assert slimnet_cli.run(["reproduce", "supp-fig3", "-o", str(tmp_path)]) == 0
    assert made == ["supp-fig3"]


def test_a_dry_run_simulates_nothing(made, tmp_path, capsys):
    assert slimnet_cli.run(["reproduce", "fig4", "--dry-run", "-o", str(tmp_path / "out")]) == 0
    assert "fig4 is simulated" in capsys.readouterr().err
    assert made == []
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_one_line(made, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert slimnet_cli.run(["reproduce", "fig4", "-o", str(tmp_path / "file")]) == 1
    assert "choose another folder with -o" in capsys.readouterr().err


@pytest.mark.parametrize("data", [[], {}, {"title": "t", "gradients": {"noise": 1}, "curves": [{"odd": 1}]}])
def test_what_is_no_figure_is_refused(data):
    with pytest.raises(UsageError, match="not a simulated figure"):
        ScalarFigure.from_dict(data)
