"""Production: `.venv/bin/gunicorn`, with no argument, in the checkout. The variables are in .env.example."""

import gc
import sys
from pathlib import Path

gc.disable()  # until what the processes share is loaded: it is no garbage, and to look at it costs a fifth of the start

# Before the working directory, which gunicorn puts first: a bot.py of somebody's bot there is not meant here.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from bot import server
from bot.stopping import graceful_seconds
from monitoring.logs import configure_logging

sys.path.pop(0)

settings = server.settings_of_master()
configure_logging(settings.log_level, settings.log_format)

# Set by gunicorn before it imports the application, and kept from a master that takes over (SIGUSR2): it has its own.
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={server.metrics_directory()}"]

wsgi_app = "bot.web:app"
worker_class = server.Process
logger_class = server.Log
bind = settings.bind
workers = settings.web_concurrency
preload_app = True  # the processes share what is imported: less memory, a quicker start
control_socket_disable = True  # nobody needs it, and two masters would fight for its path

keepalive = 75  # longer than a proxy keeps an idle connection (nginx: 60 s), or it would write into a closing one
graceful_timeout = graceful_seconds(settings)
# A stopping process no longer reports to its master. It must not be taken for a hung one while it drains.
timeout = max(30, 2 * graceful_timeout)


def pre_fork(_arbiter, _worker):
    server.before_fork()


def when_ready(_arbiter):
    server.announce(settings)


def child_exit(_arbiter, worker):
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)
