#include "models/weights/original_modules.h"

#include <utility>

#include "absl/strings/str_replace.h"
#include "fmt/format.h"

namespace trireme {
namespace {

// With * for the number of a block.
struct Row {
  const char* name;
  std::vector<const char*> modules;
};

struct ClassRows {
  const char* class_name;
  std::vector<Row> rows;
};

// final_layer.adaLN_modulation, whose halves are swapped there, is left out,
// and so is the context's modulation in the last block of Stable Diffusion 3.
std::vector<ClassRows> Classes() {
  return {
      {"FluxTransformer2DModel",
       {{"double_blocks.*.img_attn.qkv",
         {"transformer_blocks.*.attn.to_q", "transformer_blocks.*.attn.to_k",
          "transformer_blocks.*.attn.to_v"}},
        {"double_blocks.*.txt_attn.qkv",
         {"transformer_blocks.*.attn.add_q_proj",
          "transformer_blocks.*.attn.add_k_proj",
          "transformer_blocks.*.attn.add_v_proj"}},
        {"double_blocks.*.img_attn.proj",
         {"transformer_blocks.*.attn.to_out.0"}},
        {"double_blocks.*.txt_attn.proj",
         {"transformer_blocks.*.attn.to_add_out"}},
        {"double_blocks.*.img_mlp.0", {"transformer_blocks.*.ff.net.0.proj"}},
        {"double_blocks.*.img_mlp.2", {"transformer_blocks.*.ff.net.2"}},
        {"double_blocks.*.txt_mlp.0",
         {"transformer_blocks.*.ff_context.net.0.proj"}},
        {"double_blocks.*.txt_mlp.2",
         {"transformer_blocks.*.ff_context.net.2"}},
        {"double_blocks.*.img_mod.lin", {"transformer_blocks.*.norm1.linear"}},
        {"double_blocks.*.txt_mod.lin",
         {"transformer_blocks.*.norm1_context.linear"}},
        {"single_blocks.*.linear1",
         {"single_transformer_blocks.*.attn.to_q",
          "single_transformer_blocks.*.attn.to_k",
          "single_transformer_blocks.*.attn.to_v",
          "single_transformer_blocks.*.proj_mlp"}},
        {"single_blocks.*.linear2", {"single_transformer_blocks.*.proj_out"}},
        {"single_blocks.*.modulation.lin",
         {"single_transformer_blocks.*.norm.linear"}},
        {"img_in", {"x_embedder"}},
        {"txt_in", {"context_embedder"}},
        {"time_in.in_layer", {"time_text_embed.timestep_embedder.linear_1"}},
        {"time_in.out_layer", {"time_text_embed.timestep_embedder.linear_2"}},
        {"vector_in.in_layer", {"time_text_embed.text_embedder.linear_1"}},
        {"vector_in.out_layer", {"time_text_embed.text_embedder.linear_2"}},
        {"guidance_in.in_layer",
         {"time_text_embed.guidance_embedder.linear_1"}},
        {"guidance_in.out_layer",
         {"time_text_embed.guidance_embedder.linear_2"}},
        {"final_layer.linear", {"proj_out"}}}},
      {"SD3Transformer2DModel",
       {{"joint_blocks.*.x_block.attn.qkv",
         {"transformer_blocks.*.attn.to_q", "transformer_blocks.*.attn.to_k",
          "transformer_blocks.*.attn.to_v"}},
        {"joint_blocks.*.context_block.attn.qkv",
         {"transformer_blocks.*.attn.add_q_proj",
          "transformer_blocks.*.attn.add_k_proj",
          "transformer_blocks.*.attn.add_v_proj"}},
        {"joint_blocks.*.x_block.attn2.qkv",
         {"transformer_blocks.*.attn2.to_q", "transformer_blocks.*.attn2.to_k",
          "transformer_blocks.*.attn2.to_v"}},
        {"joint_blocks.*.x_block.attn.proj",
         {"transformer_blocks.*.attn.to_out.0"}},
        {"joint_blocks.*.x_block.attn2.proj",
         {"transformer_blocks.*.attn2.to_out.0"}},
        {"joint_blocks.*.context_block.attn.proj",
         {"transformer_blocks.*.attn.to_add_out"}},
        {"joint_blocks.*.x_block.mlp.fc1",
         {"transformer_blocks.*.ff.net.0.proj"}},
        {"joint_blocks.*.x_block.mlp.fc2", {"transformer_blocks.*.ff.net.2"}},
        {"joint_blocks.*.context_block.mlp.fc1",
         {"transformer_blocks.*.ff_context.net.0.proj"}},
        {"joint_blocks.*.context_block.mlp.fc2",
         {"transformer_blocks.*.ff_context.net.2"}},
        {"joint_blocks.*.x_block.adaLN_modulation.1",
         {"transformer_blocks.*.norm1.linear"}}}}};
}

}  // namespace

std::vector<OriginalModule> OriginalModulesOf(std::string_view class_name,
                                              int blocks) {
  std::vector<OriginalModule> originals;
  for (const ClassRows& of_class : Classes()) {
    if (of_class.class_name != class_name) continue;
    for (const Row& row : of_class.rows) {
      const bool of_blocks =
          std::string_view(row.name).find('*') != std::string_view::npos;
      for (int block = 0; block < (of_blocks ? blocks : 1); ++block) {
        const std::string number = fmt::format("{}", block);
        OriginalModule original;
        original.name = absl::StrReplaceAll(row.name, {{"*", number}});
        for (const char* module : row.modules) {
          original.modules.push_back(
              absl::StrReplaceAll(module, {{"*", number}}));
        }
        originals.push_back(std::move(original));
      }
    }
  }
  return originals;
}

}  // namespace trireme
