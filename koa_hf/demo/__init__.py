"""The web demo: everything behind the layout in app.py, which starts it.

serve          options, start and stop of the server
flow           event handlers of the page: upload, grade, regrade, show a row, report, clear
session        each visitor's results in memory, and a bound on all of them
components     parts of the page: film editor, heat map, knee panel, results table, examples, disagreement form
page           HTML of results and messages, style sheet
theme          Gradio theme
endpoints      the endpoints of `api` on the page's server
api            endpoints for programs: grade, grade_film, grade_many, heat_map, report
batch          many files at once, one table row per knee
batcher        dynamic batching of concurrent requests
starting       a grader that loads in the background
examples       X-rays offered on the page
disagreements  readers' own grades, collected as a data set
"""

__all__ = [
    "api",
    "batch",
    "batcher",
    "components",
    "disagreements",
    "endpoints",
    "examples",
    "flow",
    "page",
    "serve",
    "session",
    "starting",
    "theme",
]
