"""Colours and fonts of the page as a Gradio theme; `page.css` styles the rest."""

import gradio as gr

# System fonts only: the page sends no request to any other server.
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")


THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    secondary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    font=FONTS,
    font_mono=("ui-monospace", "Consolas", "monospace"),
).set(
    body_background_fill="#f4f7f9",
    body_background_fill_dark="#0c1319",
    block_background_fill="#ffffff",
    block_background_fill_dark="#141e26",
    block_border_color="#d8e0e6",
    block_border_color_dark="#2a3843",
    block_label_text_color="#40525f",
    block_label_text_color_dark="#b9c6d0",
    block_label_background_fill="#ffffff",
    block_label_background_fill_dark="#141e26",
    button_secondary_background_fill="#ffffff",
    button_secondary_background_fill_dark="#141e26",
    button_secondary_background_fill_hover="#eef3f5",
    button_secondary_background_fill_hover_dark="#22303a",
    button_secondary_border_color="#c3ced6",
    button_secondary_border_color_dark="#3a4b57",
    checkbox_label_background_fill="#eef3f5",
    checkbox_label_background_fill_dark="#22303a",
    input_background_fill_dark="#0c1319",
    body_text_color="#13212b",
    body_text_color_dark="#e8eff4",
    body_text_color_subdued="#4c5f6d",
    body_text_color_subdued_dark="#a9b8c4",
)
