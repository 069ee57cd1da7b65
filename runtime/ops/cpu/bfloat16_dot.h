// Whether products by dot products of bf16 pairs are the best that this
// processor has: it has the instruction (avx512_bf16) and no matrix unit.

#ifndef TRIREME_RUNTIME_OPS_CPU_BFLOAT16_DOT_H_
#define TRIREME_RUNTIME_OPS_CPU_BFLOAT16_DOT_H_

namespace trireme {

bool UsesBFloat16Dots();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_BFLOAT16_DOT_H_
