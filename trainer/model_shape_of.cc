#include "trainer/model_shape_of.h"

namespace trireme {
namespace {

// Of the embedding of a scalar time; see models/dit/dit.cc.
constexpr int64_t kTimeChannels = 256;

}  // namespace

ModelShape ModelShapeOf(const TrainingSetup& setup) {
  const DitConfig& dit = setup.model;
  const int64_t h = dit.hidden;
  ModelShape shape;
  shape.name = "DiT";
  shape.layers = dit.layers;
  shape.hidden = h;
  shape.mlp_hidden = dit.mlp_hidden;
  shape.heads = dit.heads;
  shape.tokens = dit.tokens();
  shape.text_tokens = dit.text_tokens;
  shape.text = TextOf(dit);
  shape.modulation_parameters = 6 * h * (h + 1);
  shape.qk_norm = dit.qk_norm;
  shape.embedding_parameters =
      (dit.patch_channels() + 1) * h + (kTimeChannels + 1) * h + (h + 1) * h +
      (dit.classes > 0 ? (dit.classes + 1) * h : 0) +
      (dit.text_tokens > 0 ? dit.text_width + 1 : 0) * h;
  shape.embedding_flops =
      2.0 * static_cast<double>(dit.tokens() * dit.patch_channels() * h +
                                kTimeChannels * h + h * h +
                                dit.text_tokens * dit.text_width * h);
  shape.head_parameters = 2 * h * (h + 1) + (h + 1) * dit.patch_channels();
  shape.head_flops =
      2.0 * static_cast<double>(dit.tokens() * h * dit.patch_channels());
  shape.element_bytes = DTypeSize(setup.dtype);
  shape.dtype = DTypeName(setup.dtype);
  const bool masters = shape.element_bytes == 2;
  shape.gradient_bytes = setup.dtype == DType::kFloat64 ? 8 : 4;
  // Master weight, two moments and the average.
  shape.optimizer_bytes =
      shape.gradient_bytes *
      ((masters ? 3 : 2) + (setup.optimizer.ema_decay > 0 ? 1 : 0));
  return shape;
}

}  // namespace trireme
