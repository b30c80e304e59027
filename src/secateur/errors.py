"""The one family of errors. Each says where, what is wrong, and what to do."""


class SecateurError(Exception):
    """Something about the model, the data, the budget or a file stops Secateur; nothing of yours was changed."""


class TraceError(SecateurError):
    """The network can't be exported, or nothing in it can be cut."""


class OperatorRuleError(TraceError):
    """The rule that was registered for an operator fails, or does not describe the operator."""


class DataError(SecateurError):
    """The examples, the labels or the loss can't be used."""


class TargetError(DataError):
    """The targets can't be used for the default loss."""


class MissingGradientError(SecateurError):
    """An operator of the network has no gradient, which what was asked for needs."""


class BudgetError(SecateurError):
    """The budget is out of range, in an unknown unit, or can't be reached."""


class NameMatchError(SecateurError):
    """A name of a group, criterion or option matches nothing."""


class SurgeryError(SecateurError):
    """The model can't be cut as planned, or the cut model does not compute what it should."""


class StorageError(SecateurError):
    """A saved result can't be written, or what was read is damaged or belongs to another network."""


class CheckpointError(StorageError):
    """A checkpoint is of another run, or another process is using it."""


class OptionError(SecateurError):
    """An argument has a wrong type, is out of range, or does not apply to what was asked for."""


class ProcessError(SecateurError):
    """Another of the processes that share the work failed, has ended, or works on something else."""


class SecateurWarning(UserWarning):
    """A warning about the examples, the model or the result.

    Args:
        message: the message.
        subject: what it is about, such as a layer; empty where it is about the run.
        kind: the kind of warning; those of one kind are shown in one line.
    """

    def __init__(self, message: str, subject: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.subject, self.kind = subject, kind
