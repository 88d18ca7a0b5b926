"""What ends a validation although the data are innocent."""

from pathlib import Path

import pytest

from serving.settings import Settings
from serving.validation_lane import ValidationLane
from tests.serving.databases import new_database
from tests.serving.workplace import Workplace, rows


def test_an_encoder_that_is_not_there_fails_the_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = Workplace(tmp_path, new_database("sqlite", tmp_path, None), tmp_path)
    settings = Settings(home=tmp_path, default_base=str(tmp_path / "nothing"))
    job = place.submit(rows(20))
    assert ValidationLane(settings, place.jobs, place.files, "worker").once()
    found = place.jobs.get(job.id)
    assert found.status == "failed" and found.error is not None
    assert found.error == {
        "code": "training_failed",
        "message": "Validation ended: it could not be carried out; the server's log has the reason",
        "param": None,
    }
    assert "data cannot be validated" in caplog.text
