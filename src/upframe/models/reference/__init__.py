"""Every network as its description reads, in its reference form: without the care that upframe's own take of time and memory.

These are yardsticks: `upframe bench --compare` times upframe's networks against them, and tests hold the outputs of the two
together. They take the same keyword arguments and the same weights, name for name, so that
`reference.load_state_dict(network.state_dict())` is all it takes; they are float32, (N, C, H, W) or (N, T, C, H, W), and take
only the sizes that the published code takes. A family names its own in its registration (`Family.reference`).
"""
