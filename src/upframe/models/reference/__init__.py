"""The reference form of every network: written as its paper describes it, without care for time and memory.

`upframe bench --compare` times upframe's networks against the reference forms, and tests compare their outputs. A reference
form takes the same keyword arguments and the same weights, name for name: `reference.load_state_dict(network.state_dict())`
copies the weights. It computes in float32 on (N, C, H, W) or (N, T, C, H, W), and takes only the sizes that the published code
takes. Each family names its reference form (`Family.reference`).
"""
