#include "runtime/autograd/window_functions.h"

#include <vector>

#include "gtest/gtest.h"
#include "runtime/autograd/gradient_check_testing.h"

namespace trireme {
namespace {

using WindowFunctionsTest = GradientCheck;

TEST_F(WindowFunctionsTest, WindowAttentionOfShiftedAndOfWholePictures) {
  for (const WindowLayout& layout :
       {WindowLayout{.height = 4, .width = 2, .window = 2, .shift = 1},
        WindowLayout{.height = 2, .width = 2, .window = 2}}) {
    Parameter log_scales = MakeParameter({2}, 1);
    Check(
        [&](Tape& tape, const auto& x) {
          return WindowAttention(tape, layout, x[0], log_scales, x[1]);
        },
        {Random({2, layout.height * layout.width, 3 * 2 * 3}, 2),
         Random({layout.differences(), 2}, 3)},
        {&log_scales});
  }
}

}  // namespace
}  // namespace trireme
