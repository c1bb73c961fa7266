"""BOT_APP for a file that is a program of its own: its `main` runs as it is, but gets our builder, and returns where it
would poll."""

import importlib.util
import os
import sys
from pathlib import Path
from unittest.mock import patch

from telegram.ext import Application, ApplicationBuilder

from bot.application import TelequeueApplication


def setup(builder: ApplicationBuilder) -> Application:
    """EXAMPLE: the file. EXAMPLE_DEVELOPER: what its DEVELOPER_CHAT_ID is, if it has one."""
    path = Path(os.environ["EXAMPLE"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)  # where jobs find their callbacks
    spec.loader.exec_module(module)
    if hasattr(module, "DEVELOPER_CHAT_ID"):
        module.DEVELOPER_CHAT_ID = int(os.environ["EXAMPLE_DEVELOPER"])
    with (
        patch.object(Application, "builder", lambda: builder),
        patch.object(TelequeueApplication, "run_polling", lambda *_args, **_kwargs: None),
    ):
        module.main()
    application = builder.built  # type: ignore[attr-defined]
    assert application
    return application
