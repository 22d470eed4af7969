"""Pages as Gradio calls them."""

from types import SimpleNamespace

from feedback_ui.shared.i18n import Translator

EN = Translator("en")


def asking(language):
    """A request of a browser that prefers that language."""
    return SimpleNamespace(headers={"accept-language": language}, cookies={})


ENGLISH = asking("en")


def page(app, name):
    """The page object of a Blocks, found through its handlers."""
    owners = (getattr(fn.fn, "__self__", None) for fn in app.fns.values() if fn.fn)
    return next(owner for owner in owners if type(owner).__name__ == name)


def filled_in(training, **changes):
    """The form's values as Gradio passes them, with some replaced."""
    form = training.form
    values = {form.preset: form.preset.value} | {field: field.value for field in form.fields.values()}
    return values | {form.fields[name.replace("_", "-")]: value for name, value in changes.items()}
