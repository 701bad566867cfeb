"""One step of an LSTM whose gates are summed already."""


def lstm_cell(gates, cell):
    """Gates [rows, 4 nh] (input, forget, cell, output: PyTorch's order) and the cell before, [rows, nh] -> the hidden
    state and the cell after, [rows, nh] each."""
    enter, forget, candidate, leave = gates.chunk(4, dim=1)
    cell = (forget.sigmoid() * cell).addcmul(enter.sigmoid(), candidate.tanh())
    return leave.sigmoid() * cell.tanh(), cell
