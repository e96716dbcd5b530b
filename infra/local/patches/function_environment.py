"""Functions see their own environment only.

AWS: a function has the variables of its configuration and those that Lambda sets.
ministack: a function inherits the environment of ministack too, so that a forgotten variable in the template goes
unnoticed where the caller's shell has it.
Remedy: of ministack's own variables a function keeps what a process needs to run and to find the local AWS.
"""

import os

from ministack.services import lambda_svc

INHERITED = {"PATH", "LANG", "TMPDIR", "AWS_ENDPOINT_URL"}


def apply() -> None:
    worker_env = lambda_svc._provided_worker_env

    def own_env(config, code_dir, port):
        configured = lambda_svc._runtime_env_vars(config)
        foreign = os.environ.keys() - INHERITED - configured.keys()
        return {
            name: value
            for name, value in worker_env(config, code_dir, port).items()
            if name not in foreign or value != os.environ[name]
        }

    lambda_svc._provided_worker_env = own_env
