"""Options of the app are those that Gradio takes."""

import inspect

import gradio as gr

from feedback_ui.app import launch_options


def test_launch_options_are_accepted_by_launch_and_mount():
    assert set(launch_options()) <= set(inspect.signature(gr.Blocks.launch).parameters)
    assert set(launch_options()) <= set(inspect.signature(gr.mount_gradio_app).parameters)
