// A piece at the wrong place is a model that computes something else, with
// weights that look right.

#include "models/weights/name_table.h"

#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

// What the tensors hold if parameter element i is i: by the table's pieces.
std::vector<int64_t> InTensor(const NameTable& table,
                              const NamedShape& tensor) {
  std::vector<int64_t> values(tensor.shape.num_elements(), -1);
  for (const WeightPiece& piece : table.pieces()) {
    if (piece.tensor != tensor.name) continue;
    const int64_t size = piece.view.num_elements();
    for (int64_t i = 0; i < size;) {
      const PiecePosition position = PositionInTensor(piece, i);
      for (int64_t k = 0; k < position.run; ++k) {
        values[piece.tensor_begin + position.tensor_offset + k] =
            piece.parameter_begin + i + k;
      }
      i += position.run;
    }
  }
  return values;
}

using Values = std::vector<int64_t>;

TEST(NameTableTest, FusedTensorsComeApart) {
  NameTable table("Model", "{}", "{}");
  const std::vector<NamedShape> tensors = {{"q", {2}}, {"k", {2}}, {"v", {2}}};
  table.AddSplit({"qkv", {3, 2}}, tensors);
  table.CheckComplete();
  EXPECT_EQ(InTensor(table, tensors[0]), (Values{0, 1}));
  EXPECT_EQ(InTensor(table, tensors[2]), (Values{4, 5}));
}

TEST(NameTableTest, HalvesChangePlaces) {
  NameTable table("Model", "{}", "{}");
  const int parts[] = {1, 0};
  const NamedShape tensor{"scale_shift", {4}};
  table.AddReordered({"shift_scale", {2, 2}}, parts, tensor);
  table.CheckComplete();
  EXPECT_EQ(InTensor(table, tensor), (Values{2, 3, 0, 1}));
}

TEST(NameTableTest, PatchesOfAConvolutionHaveChannelsFirst) {
  // Ours: [1, rows 2, columns 2 · channels 3]; theirs: [1, 3, 2, 2].
  NameTable table("Model", "{}", "{}");
  const NamedShape tensor{"conv", {1, 3, 2, 2}};
  table.AddPermuted({"patches", {1, 12}}, {1, 2, 2, 3}, {0, 3, 1, 2}, tensor);
  table.CheckComplete();
  EXPECT_EQ(InTensor(table, tensor),
            (Values{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11}));
  // And back.
  const WeightPiece back = Reversed(table.pieces()[0]);
  for (int64_t i = 0; i < 12; ++i) {
    const int64_t at = PositionInTensor(table.pieces()[0], i).tensor_offset;
    EXPECT_EQ(PositionInTensor(back, at).tensor_offset, i);
  }
}

TEST(NameTableTest, NeighboursThatStayNeighboursAreOneRun) {
  // Heads interleaved with q, k, v: [3, heads 2, 4] and [heads, 3, 4].
  NameTable table("Model", "{}", "{}");
  table.AddPermuted({"qkv", {3, 8}}, {3, 2, 4}, {1, 0, 2}, {"fused", {6, 4}});
  table.CheckComplete();
  const PiecePosition second_head = PositionInTensor(table.pieces()[0], 4);
  EXPECT_EQ(second_head.tensor_offset, 12);
  EXPECT_EQ(second_head.run, 4);
}

TEST(NameTableDeathTest, WhatIsLeftOutIsNamed) {
  NameTable table("Model", "{}", "{}");
  table.DeclareParameter({"weight", {2, 2}});
  table.DeclareTensor({"half", {2}});
  table.AddPiece({.parameter = "weight", .tensor = "half", .view = {2}});
  EXPECT_DEATH(table.CheckComplete(), "weight");
}

}  // namespace
}  // namespace trireme
