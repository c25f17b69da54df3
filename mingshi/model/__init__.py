"""Networks: loading, packed attention, log-probabilities, adapters, generation, export."""
