// How a model's original code names and fuses the linear modules of its class
// in diffusers: the names by which kohya's scripts (sd-scripts) and ComfyUI
// know adapters.

#ifndef TRIREME_MODELS_WEIGHTS_ORIGINAL_MODULES_H_
#define TRIREME_MODELS_WEIGHTS_ORIGINAL_MODULES_H_

#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// One linear layer there, whose output channels are those of `modules` one
// after the other.
struct OriginalModule {
  std::string name;  // "double_blocks.0.img_attn.qkv"
  std::vector<std::string> modules;
};

// Of a class with blocks 0 to `blocks` − 1 of each kind; empty: the class has
// no row in the table.
std::vector<OriginalModule> OriginalModulesOf(std::string_view class_name,
                                              int blocks);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_ORIGINAL_MODULES_H_
