"""Every network that has a graph: the table, its entries, inputs and comparisons."""
