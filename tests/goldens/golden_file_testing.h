// A file of tensors of another implementation, by the names that a family's
// table gives its parameters.

#ifndef TRIREME_TESTS_GOLDENS_GOLDEN_FILE_TESTING_H_
#define TRIREME_TESTS_GOLDENS_GOLDEN_FILE_TESTING_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/weights/name_table.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/pointwise.h"

namespace trireme {

inline std::vector<double> Doubles(const Tensor& x) {
  return Cast(x, DType::kFloat64).ToVector<double>();
}

// Of the largest element of its tensor. The files themselves, and diffusers'
// norms of heads and its rotation, are rounded to fp32.
inline constexpr double kGoldenTolerance = 1e-6;

inline void ExpectNear(const std::vector<double>& values,
                       const std::vector<double>& expected,
                       const std::string& name) {
  ASSERT_EQ(values.size(), expected.size()) << name;
  double largest = 0;
  for (const double value : expected) {
    largest = std::max(largest, std::abs(value));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], kGoldenTolerance * largest)
        << name << ", element " << i;
  }
}

class GoldenFile {
 public:
  using Values = std::map<std::string, std::vector<double>>;

  GoldenFile(const std::string& path, Device& device) : device_(device) {
    auto file = SafetensorsFile::Open(path);
    CHECK_OK(file.status());
    file_ = *std::move(file);
  }

  Tensor Golden(const std::string& name) const {
    auto tensor = ReadTensor(*file_, name, device_);
    CHECK_OK(tensor.status());
    return Cast(*tensor, DType::kFloat64);
  }

  // Whole numbers of any type, as int32.
  Tensor Integers(const std::string& name) const {
    auto tensor = ReadTensor(*file_, name, device_);
    CHECK_OK(tensor.status());
    if (tensor->dtype() == DType::kInt32) return *std::move(tensor);
    std::vector<int32_t> values;
    for (const double value : Doubles(*tensor)) {
      values.push_back(static_cast<int32_t>(value));
    }
    return Tensor::FromValues<int32_t>(device_, tensor->shape(), values);
  }

  // By parameter, from tensors `prefix`NAME.
  Values ThroughNames(const NameTable& table, const std::string& prefix) const {
    Values tensors;
    for (const NamedShape& tensor : table.tensors()) {
      if (file_->tensors().contains(prefix + tensor.name)) {
        tensors[tensor.name] = Doubles(Golden(prefix + tensor.name));
      }
    }
    Values parameters;
    for (const NamedShape& parameter : table.parameters()) {
      parameters[parameter.name].resize(parameter.shape.num_elements());
    }
    for (const WeightPiece& piece : table.pieces()) {
      for (int64_t i = 0; i < piece.view.num_elements(); ++i) {
        parameters[piece.parameter][piece.parameter_begin + i] =
            tensors.at(piece.tensor)
                .at(piece.tensor_begin +
                    PositionInTensor(piece, i).tensor_offset);
      }
    }
    return parameters;
  }

  // What the file holds under `prefix` has a name in the table, and the other
  // way round.
  void ExpectNamesOf(const NameTable& table, const std::string& prefix) const {
    std::map<std::string, Shape> expected;
    for (const auto& [name, entry] : file_->tensors()) {
      if (name.rfind(prefix, 0) == 0) {
        expected[name.substr(prefix.size())] = entry.shape;
      }
    }
    for (const NamedShape& tensor : table.tensors()) {
      ASSERT_TRUE(expected.contains(tensor.name)) << tensor.name;
      EXPECT_EQ(tensor.shape, expected.at(tensor.name)) << tensor.name;
      expected.erase(tensor.name);
    }
    EXPECT_TRUE(expected.empty()) << expected.begin()->first;
    for (const ConstantTensor& constant : table.constants()) {
      std::vector<double> values;
      for (int64_t i = 0; i < constant.tensor.shape.num_elements(); ++i) {
        values.push_back(constant.element(i));
      }
      ExpectNear(values, Doubles(Golden(prefix + constant.tensor.name)),
                 constant.tensor.name);
    }
  }

 private:
  Device& device_;
  std::unique_ptr<SafetensorsFile> file_;
};

}  // namespace trireme

#endif  // TRIREME_TESTS_GOLDENS_GOLDEN_FILE_TESTING_H_
