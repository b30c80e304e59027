"""A limit on active waiting: the threads of torch's operators in the processes of the command line."""

from collections.abc import MutableMapping

VARIABLE = "GOMP_SPINCOUNT"
SPINS = 3000  # for longer than from one operator to the next, and shorter than another process has its turn
USER_VARIABLES = (VARIABLE, "OMP_WAIT_POLICY")


def limit_active_waiting(environment: MutableMapping[str, str]) -> None:
    """Let threads of GNU OpenMP sleep after a short wait, unless the user chose how they wait.

    By default they wait actively for milliseconds at the end of each parallel operator. Where other processes use the
    cores, the thread that is waited for can't run meanwhile, and a network of small operators takes up to fifty times
    as long. OpenMP reads the variable when torch is imported.

    Args:
        environment: the variables of the process, which are changed.

    Examples:
        >>> environment = {}
        >>> limit_active_waiting(environment)
        >>> environment
        {'GOMP_SPINCOUNT': '3000'}
    """
    if not any(variable in environment for variable in USER_VARIABLES):
        environment[VARIABLE] = str(SPINS)
