import sys
from pathlib import Path

import keras
import pytest

from inferry_trainer.errors import ConfigError, ExportError
from inferry_trainer.evaluation.classifier import Pixels
from inferry_trainer.export.keras_source import load_classifier
from inferry_trainer.export.loading import import_module, reason_of


def test_a_module_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "layers_of_mine_42.py").write_text("MARK = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    import_module("layers_of_mine_42")
    assert sys.modules.pop("layers_of_mine_42").MARK == 1


def test_a_module_that_is_not_there_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigError, match=rf"--import nowhere: ModuleNotFoundError: .* looked for in {tmp_path}"):
        import_module("nowhere")


def test_a_module_that_fails_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_42.py").write_text("import no_such_dependency\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigError, match=r"No module named 'no_such_dependency'$"):
        import_module("failing_42")


def test_the_cause_of_a_load_error_is_kept_however_long_the_settings_before_it() -> None:
    error = TypeError(
        f"<class 'Dense'> could not be deserialized. config={'x' * 5000}.\n\nException encountered: bad axis"
    )
    reason = reason_of(error)
    assert reason.startswith("bad axis (Keras: <class 'Dense'>")
    assert len(reason) < 500


def test_a_long_error_without_a_marked_cause_keeps_both_ends() -> None:
    reason = reason_of(ValueError("begin " + "x" * 5000 + " end"))
    assert reason.startswith("begin")
    assert reason.endswith("end")
    assert len(reason) < 400


def test_an_error_without_words_has_its_kind() -> None:
    assert reason_of(KeyError()) == "KeyError"


def test_a_lambda_layer_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Lambda(lambda images: images + 1)])
    model.save(tmp_path / "mine.keras")
    with pytest.raises(ExportError, match=r"has a Lambda layer, .* --import a module .*enable_unsafe_deserialization"):
        load_classifier(tmp_path / "mine.keras", pixels=Pixels.UNIT, outputs=None)
