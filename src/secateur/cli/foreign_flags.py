"""Commands that answer the options of other tools with what to write in their place."""

from typing import Any

from typer.core import TyperCommand

from secateur.cli.common_options import exit_with
from secateur.errors import NameMatchError
from secateur.options.foreign import foreign_flag


class CommandWithAdvice(TyperCommand):
    """A command that names its own option where it is given one of other tools, such as `--sparsity 0.5`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, unless one is an option of other tools."""
        flags = {flag for parameter in self.params for flag in parameter.opts}
        options = [
            argument for argument in args if argument.startswith("--") and argument.partition("=")[0] not in flags
        ]
        for option in options:
            name, _, value = option.removeprefix("--").partition("=")
            following = args[args.index(option) + 1 : args.index(option) + 2]
            foreign = foreign_flag(name, {flag.removeprefix("--") for flag in flags})
            if foreign is not None:
                advice = foreign.on_command_line(name, _fraction_or_text(value or "".join(following)))
                raise exit_with(NameMatchError(f"`secateur {ctx.info_name}` has no option --{name}; {advice}"))
        return super().parse_args(ctx, args)


def _fraction_or_text(text: str) -> object:
    """Return the number that a text stands for, or the text."""
    try:
        return float(text)
    except ValueError:
        return text
