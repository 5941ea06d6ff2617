"""PyTorch side: networks, importers of published weights, training stages. Needs the train extra."""
