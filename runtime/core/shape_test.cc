// Shapes, and the element types with their conversions.

#include "runtime/core/shape.h"

#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "gtest/gtest.h"
#include "runtime/core/dtype.h"

namespace trireme {
namespace {

TEST(ShapeTest, CountsElementsAroundEachDim) {
  const Shape shape = {2, 3, 5, 7};
  EXPECT_EQ(shape.rank(), 4);
  EXPECT_EQ(shape.num_elements(), 210);
  EXPECT_EQ(shape.elements_before(0), 1);
  EXPECT_EQ(shape.elements_before(2), 6);
  EXPECT_EQ(shape.elements_after(1), 35);
  EXPECT_EQ(shape.elements_after(-1), 1);
  EXPECT_EQ(shape.dim(-1), 7);
  EXPECT_EQ(shape.dim(-4), 2);
  EXPECT_EQ(shape.Normalize(-2), 2);
}

TEST(ShapeTest, ScalarsHaveOneElementAndEmptyDimsNone) {
  EXPECT_EQ(Shape().num_elements(), 1);
  EXPECT_EQ(Shape().ToString(), "[]");
  EXPECT_EQ((Shape{4, 0, 3}).num_elements(), 0);
}

TEST(ShapeTest, EqualityIsOfRankAndExtents) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2, 3}), (Shape{2, 3, 1}));
  EXPECT_NE((Shape{2, 0}), (Shape{2}));
  Shape grown = {2};
  grown.push_back(4);
  grown.set_dim(-1, 3);
  EXPECT_EQ(grown, (Shape{2, 3}));
  EXPECT_EQ(grown.ToString(), "[2, 3]");
}

TEST(ShapeDeathTest, NamesTheDimAndTheShape) {
  const Shape shape = {2, 3};
  EXPECT_DEATH(shape.dim(2), "dim 2 of shape \\[2, 3\\]");
  EXPECT_DEATH(shape.dim(-3), "dim -3 of shape \\[2, 3\\]");
  EXPECT_DEATH((Shape{-1}), "Check failed");
  EXPECT_DEATH((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}), "Check failed");
}

TEST(DTypeTest, NamesAndSizes) {
  struct Expected {
    DType dtype;
    std::string_view name;
    int64_t size;
    bool floating;
  };
  for (const Expected& expected :
       {Expected{DType::kFloat32, "fp32", 4, true},
        Expected{DType::kBFloat16, "bf16", 2, true},
        Expected{DType::kFloat64, "fp64", 8, true},
        Expected{DType::kInt32, "int32", 4, false},
        Expected{DType::kInt64, "int64", 8, false},
        Expected{DType::kBool, "bool", 1, false},
        Expected{DType::kUint8, "uint8", 1, false},
        Expected{DType::kFloat16, "fp16", 2, true}}) {
    EXPECT_EQ(DTypeName(expected.dtype), expected.name);
    EXPECT_EQ(DTypeSize(expected.dtype), expected.size);
    EXPECT_EQ(IsFloating(expected.dtype), expected.floating);
    EXPECT_EQ(DTypeFromName(expected.name), expected.dtype);
  }
  EXPECT_EQ(DTypeFromName("fp8"), std::nullopt);
  EXPECT_EQ(DTypeFromName(""), std::nullopt);
}

TEST(DTypeTest, DispatchGivesTheElementType) {
  const auto size = [](DType dtype) {
    return DispatchFloating(dtype, [](auto element) {
      return static_cast<int64_t>(sizeof(element));
    });
  };
  for (DType dtype :
       {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64}) {
    EXPECT_EQ(size(dtype), DTypeSize(dtype));
  }
  EXPECT_DEATH(size(DType::kInt32), "not a floating type: int32");
}

TEST(BFloat16Test, EveryValueSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    BFloat16 value;
    value.bits = static_cast<uint16_t>(bits);
    const float wide = static_cast<float>(value);
    EXPECT_EQ(std::bit_cast<uint32_t>(wide), bits << 16);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(wide))));
    } else {
      EXPECT_EQ(BFloat16(wide).bits, bits);
      EXPECT_EQ(static_cast<double>(value), static_cast<double>(wide));
    }
  }
}

TEST(Float16Test, EveryValueSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    Float16 value;
    value.bits = static_cast<uint16_t>(bits);
    const float wide = static_cast<float>(value);
    if ((bits & 0x7fff) > 0x7c00) {
      EXPECT_TRUE(std::isnan(wide));
      EXPECT_TRUE(std::isnan(static_cast<float>(Float16(wide))));
    } else {
      EXPECT_EQ(Float16(wide).bits, bits);
    }
  }
  Float16 one, smallest, largest;
  one.bits = 0x3c00;
  smallest.bits = 1;
  largest.bits = 0x7bff;
  EXPECT_EQ(static_cast<float>(one), 1.0f);
  EXPECT_EQ(static_cast<float>(smallest), std::ldexp(1.0f, -24));
  EXPECT_EQ(static_cast<float>(largest), 65504.0f);
}

TEST(Float16Test, RoundsToNearestAndTiesToEven) {
  EXPECT_EQ(Float16(1.0f + std::ldexp(1.0f, -11)).bits, 0x3c00);
  EXPECT_EQ(Float16(1.0f + 3 * std::ldexp(1.0f, -11)).bits, 0x3c02);
  EXPECT_EQ(Float16(1.0f + std::ldexp(1.01f, -11)).bits, 0x3c01);
  EXPECT_EQ(Float16(65519.0f).bits, 0x7bff);
  EXPECT_EQ(Float16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(Float16(-1e30f).bits, 0xfc00);
  EXPECT_EQ(Float16(std::ldexp(1.0f, -25)).bits, 0);
  EXPECT_EQ(Float16(std::ldexp(1.01f, -25)).bits, 1);
  EXPECT_EQ(Float16(std::ldexp(3.0f, -25)).bits, 2);
}

TEST(BFloat16Test, RoundsToNearestAndTiesToEven) {
  const auto rounded = [](uint32_t bits) {
    return BFloat16(std::bit_cast<float>(bits)).bits;
  };
  EXPECT_EQ(rounded(0x3f807fff), 0x3f80);  // below the middle
  EXPECT_EQ(rounded(0x3f808000), 0x3f80);  // the middle, even below
  EXPECT_EQ(rounded(0x3f808001), 0x3f81);  // above the middle
  EXPECT_EQ(rounded(0x3f818000), 0x3f82);  // the middle, even above
  EXPECT_EQ(rounded(0xbf818000), 0xbf82);  // the same below zero
  EXPECT_EQ(rounded(0x3fffffff), 0x4000);  // into the next binade
  EXPECT_EQ(rounded(0x00008001), 0x0001);  // denormals
  EXPECT_EQ(rounded(0x80000000), 0x8000);  // minus zero
}

TEST(BFloat16Test, OverflowGivesInfinityAndNanStaysNan) {
  EXPECT_EQ(BFloat16(std::numeric_limits<float>::max()).bits, 0x7f80);
  EXPECT_EQ(BFloat16(std::numeric_limits<float>::lowest()).bits, 0xff80);
  EXPECT_EQ(BFloat16(std::numeric_limits<float>::infinity()).bits, 0x7f80);
  // Payloads that lie in the lower half only, or that rounding would carry
  // into the sign.
  for (uint32_t nan : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    const BFloat16 value(std::bit_cast<float>(nan));
    EXPECT_TRUE(std::isnan(static_cast<float>(value))) << nan;
    EXPECT_EQ(value.bits >> 15, nan >> 31) << nan;
  }
}

}  // namespace
}  // namespace trireme
