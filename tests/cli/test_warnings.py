"""Tests of warnings on the command line."""

from __future__ import annotations

import logging

import pytest

from lepton_vision.cli.options import warnings_on_stderr


def test_a_warning_of_the_package_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("lepton_vision.manifest.split")
    with warnings_on_stderr():
        for _ in range(2):
            logger.warning("%d images name no patient.", 3)
        logger.info("not for people")
        logging.getLogger("another").warning("not ours")
    assert capsys.readouterr().err == "warning: 3 images name no patient.\n"
    assert not logging.getLogger("lepton_vision").handlers
