"""The paper's experiments, one recipe in each module: what is run, measured and looked for."""
