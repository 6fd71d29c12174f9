"""The model server: TF Serving's REST and gRPC, answered without TensorFlow where LiteRT suffices."""
