#include "scheduler/pieces/transformer_flops.h"

namespace trireme {
namespace {

// The sizes as real numbers. `queries`: rows that ask in the self-attention,
// and go through its output projection and the MLP; `keys`: rows that answer.
struct Terms {
  Terms(const TransformerSizes& sizes, bool last)
      : h(static_cast<double>(sizes.hidden)),
        f(static_cast<double>(sizes.mlp_hidden)),
        n(static_cast<double>(sizes.text_tokens)),
        cross(sizes.text == TransformerSizes::Text::kCross) {
    const auto s = static_cast<double>(sizes.tokens);
    const bool joint = sizes.text == TransformerSizes::Text::kJoint;
    keys = joint ? s + n : s;
    queries = joint && !last ? s + n : s;
  }

  double h, f, n;
  bool cross;
  double queries, keys;
};

}  // namespace

double AttentionForwardFlops(const TransformerSizes& sizes, bool last) {
  const Terms t(sizes, last);
  return 4 * t.queries * (t.keys + (t.cross ? t.n : 0)) * t.h;
}

double BlockForwardFlops(const TransformerSizes& sizes, bool last) {
  const Terms t(sizes, last);
  // Query and output projections, keys and values, MLP.
  double flops = 4 * t.queries * t.h * t.h + 4 * t.keys * t.h * t.h +
                 4 * t.queries * t.h * t.f;
  if (t.cross) flops += 4 * (t.queries + t.n) * t.h * t.h;
  return flops + AttentionForwardFlops(sizes, last);
}

double BlocksTrainingFlops(const TransformerSizes& sizes) {
  return 3 * (static_cast<double>(sizes.layers - 1) * BlockForwardFlops(sizes) +
              BlockForwardFlops(sizes, /*last=*/true));
}

}  // namespace trireme
