"""The model server: TF Serving's REST and gRPC, without TensorFlow where LiteRT suffices."""
