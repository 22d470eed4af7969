"""The Training page of a whole app."""

import pytest
from called_pages import page


@pytest.fixture
def training(app):
    return page(app, "TrainingPage")
