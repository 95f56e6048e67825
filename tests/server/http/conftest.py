"""The HTTP port's libraries are an extra."""

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
