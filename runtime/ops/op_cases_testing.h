// Every op on operands large enough to be worth several threads: one list for
// all tables of kernels. Ops of backward passes are among them, and differences
// of their forwards are not taken again here: in fp64 on the host, by the very
// kernels that every result is held against, runtime/autograd's tests compare
// each gradient with differences, which lower types and other devices round too
// much for.

#ifndef TRIREME_RUNTIME_OPS_OP_CASES_TESTING_H_
#define TRIREME_RUNTIME_OPS_OP_CASES_TESTING_H_

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "runtime/device/tensor.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {

struct OpCase {
  std::string name;
  std::function<std::vector<Tensor>(Operands&)> run;
  // How far results may be from those of the same operands in fp64: relative
  // to the element and the root mean square of all, in roundings of the
  // operands' type (RoundingOf).
  double roundings = 4;
  // Whether the bits depend on the operands alone.
  bool same_on_any_threads = true;

  friend void PrintTo(const OpCase& op, std::ostream* out) { *out << op.name; }
};

std::vector<OpCase> EveryOp();

// The outputs' elements; == on them is equality of bits, as the operands are
// finite.
std::vector<std::vector<double>> ValuesOf(const std::vector<Tensor>& tensors);

// That the op's results on `device`, of operands of the type, are as near to
// those in fp64 as it says.
void ExpectNearFp64(const OpCase& op, DType dtype, Device& device);

// For names of tests: "LayerNorm_affine_bfloat16".
std::string NameOf(const OpCase& op, DType dtype);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_OP_CASES_TESTING_H_
