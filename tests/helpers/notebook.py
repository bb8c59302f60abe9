"""The notebook of the documents. ``python -m tests.helpers.notebook`` runs it and keeps what it shows."""

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.helpers.documents import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def read() -> NotebookNode:
    """The notebook as it is stored."""
    return nbformat.read(NOTEBOOK, as_version=4)


def shown(cell: NotebookNode) -> list[NotebookNode]:
    """What a cell shows, without progress and warnings."""
    return [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]


def run(before: str = "") -> NotebookNode:
    """Run all cells in a process of their own, after some code; returns the notebook with what they show."""
    notebook = read()
    notebook.cells.insert(0, nbformat.v4.new_code_cell(before))
    NotebookClient(notebook, kernel_name="python3", record_timing=False).execute()
    del notebook.cells[0]
    for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.outputs = shown(cell)
        cell.execution_count = number + 1
        for output in cell.outputs:
            output.pop("execution_count", None)
            if output.output_type == "execute_result":
                output.execution_count = number + 1
    return notebook


if __name__ == "__main__":
    nbformat.write(run(), NOTEBOOK)
