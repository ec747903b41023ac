"""The reference form of every network: written as its paper describes it, without care for time and memory.

`upframe bench --compare` times upframe's networks against the reference forms, and tests compare their outputs. They take the
same keyword arguments and the same weights, name for name, so that `reference.load_state_dict(network.state_dict())` copies the
weights; they are float32, (N, C, H, W) or (N, T, C, H, W), and take only the sizes that the published code takes. A family
names its own in its registration (`Family.reference`).
"""
