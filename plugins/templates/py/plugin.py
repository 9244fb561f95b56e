"""{{name}}: takes the whitespace off both ends of every text."""

# Import here only: modules are loaded when the plugin is built.
import functools
import json

from componentize_py_types import Err
from wit_world.imports import log
from wit_world.imports.types import Edits, EmbedRequest, InputEdit_All, Inputs_Texts, Outcome, Outcome_Edited
from wit_world.imports.types import Outcome_Unchanged, Principal

lower_case = False


def told(hook):
    """Writes an exception that is no answer of a hook to the log: of the call that it ends, the gateway learns no message."""

    @functools.wraps(hook)
    def call(*arguments):
        try:
            return hook(*arguments)
        except Err:
            raise
        except Exception as error:
            place = error.__traceback__
            while place.tb_next:
                place = place.tb_next
            log.write(log.Level.ERROR, f"{type(error).__name__}: {error}, line {place.tb_lineno}", [])
            raise

    return call


class Lifecycle:
    def init(self, settings: str) -> None:
        """Called once, with the plugin's settings as JSON. Raise `Err` of a text to refuse them: the gateway shows it."""
        global lower_case
        given = json.loads(settings)
        lower_case = given.pop("lower_case", False)
        if given or not isinstance(lower_case, bool):
            raise Err("the settings of {{name}} are { lower_case = true or false }, got " + settings)


class Preprocessor:
    @told
    def preprocess(self, request: EmbedRequest, caller: Principal | None) -> Outcome:
        """Called for every request. Raise `Err(Rejection(400, code, message, []))` to refuse it."""
        if not isinstance(request.inputs, Inputs_Texts):
            return Outcome_Unchanged()
        texts = [text.strip() for text in request.inputs.value]
        if lower_case:
            texts = [text.lower() for text in texts]
        log.write(log.Level.DEBUG, "trimmed texts", [("texts", str(len(texts)))])
        return Outcome_Edited(Edits(None, InputEdit_All(texts), None, None, []))
