// LayerNorm and RMSNorm over the last dim, fused with what follows them: the
// adaptive modulation of diffusion transformers (adaLN; Peebles and Xie,
// "Scalable diffusion models with transformers", section 3.2) or an affine map.
// One pass over the data each way; statistics are fp32 (fp64 for fp64).
//
//   layer: n = (x − mean)·rstd        rms: n = x·rstd, rstd = 1/√(mean(x²)+eps)
//   modulated: y = n·(1 + scale[b]) + shift[b]
//   affine:    y = n·weight + bias

#ifndef TRIREME_RUNTIME_OPS_NORMALIZATION_H_
#define TRIREME_RUNTIME_OPS_NORMALIZATION_H_

#include "runtime/ops/heads_view.h"

namespace trireme {

enum class NormKind { kLayer, kRms };

struct NormResult {
  Tensor out;   // like x
  Tensor mean;  // [rows], compute type; undefined for kRms
  Tensor rstd;  // [rows], compute type
};

// x[b, s, h]; scale and shift [b, h] in x's dtype, both or neither (then y=n).
NormResult NormModulateForward(NormKind kind, const Tensor& x,
                               const Tensor* scale, const Tensor* shift,
                               double eps);

struct NormModulateGradients {
  Tensor x;      // like x
  Tensor scale;  // [b, h], x's dtype; undefined where scale was null
  Tensor shift;  // [b, h]
};

// `add_to_x` (may be undefined): a gradient of x from elsewhere, added in the
// same pass; its storage is reused for the result when it is unique.
NormModulateGradients NormModulateBackward(NormKind kind, const Tensor& x,
                                           const NormResult& forward,
                                           const Tensor* scale,
                                           const Tensor& grad_out,
                                           Tensor add_to_x);

// x[.., h]; weight[h] and bias[h] in x's dtype (bias may be null).
NormResult NormAffineForward(NormKind kind, const Tensor& x,
                             const Tensor& weight, const Tensor* bias,
                             double eps);

// Returns dx; grad_weight and grad_bias (compute type, [h]) get +=; either may
// be null.
Tensor NormAffineBackward(NormKind kind, const Tensor& x,
                          const NormResult& forward, const Tensor& weight,
                          const Tensor& grad_out, Tensor add_to_x,
                          const Tensor* grad_weight, const Tensor* grad_bias);

// Rotary position embedding (Su et al., "RoFormer"): adjacent channel pairs
// (2i, 2i+1) of each head are rotated by the angle of (token, i). Tables are
// [tokens, head_dim/2] in the compute type.
struct RopeTable {
  Tensor cos;
  Tensor sin;
};

// Angles for 1 to 3 axes concatenated along the head dim: axis a takes
// axis_dims[a] channels (even; they sum to head_dim), with frequencies
// theta^(−2i/axis_dims[a]). positions[token·axes + a] is the token's coordinate
// on axis a. Computed in fp64.
RopeTable MakeRopeTable(Device& device, std::span<const int64_t> axis_dims,
                        std::span<const double> positions, double theta,
                        DType compute_dtype);

// Per-head RMSNorm with weight[head_dim], then rotation; either may be absent
// (null). head_dim is at most 1024, and even where it is rotated (CHECKed).
// Reads x, writes out (another view; may not overlap). Returns rstd
// [b, tokens, heads] in the compute type (undefined without weight).
Tensor HeadsNormRopeForward(const HeadsView& x, const Tensor* weight,
                            const RopeTable* rope, double eps,
                            const HeadsView& out);

// Writes (=) dx from grad_out; grad_weight [head_dim], compute type, gets +=.
void HeadsNormRopeBackward(const HeadsView& x, const Tensor* weight,
                           const RopeTable* rope, const Tensor& rstd,
                           const HeadsView& grad_out, const HeadsView& dx,
                           const Tensor* grad_weight);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_NORMALIZATION_H_
