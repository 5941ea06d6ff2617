"""One family of exceptions. A message names the thing, the value and the remedy; the CLI prints it as it is."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """What another library says of a failure, for a message of ours: without line breaks, cut to `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


class OhloraError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidInputError(OhloraError, ValueError):
    """The request itself is wrong: nothing was started and nothing was written (exit status 2)."""


class ImageError(OhloraError):
    """One picture cannot be read, decoded or encoded. The rest of a batch goes on."""


class BundleError(OhloraError):
    """A bundle is missing, damaged, foreign, or lacks the part that was asked for."""


class EngineError(OhloraError):
    """A compiled engine cannot be loaded, fails its self-test, or got input of the wrong shape."""


class CheckpointError(OhloraError):
    """A weights file is not of the kind it was said to be."""


class OutputError(OhloraError):
    """A result cannot be written: full disk, no permission. The job stops and can be resumed."""


class PlaceError(OutputError):
    """One result cannot be at its place: a folder stands there, or its name is too long. The rest of a job goes on."""
