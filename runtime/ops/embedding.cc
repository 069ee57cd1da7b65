#include "runtime/ops/embedding.h"

#include <cmath>
#include <cstring>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// Calls f(pixel offset, token offset, run) for the runs of a patch row: the
// pixels of one (picture, channel, row) that one token holds. Pixel offsets
// advance by 1 along the run, token offsets by `channels`.
template <typename F>
void ForEachPatchRow(int64_t batch, int64_t channels, int64_t height,
                     int64_t width, int64_t patch, F&& f) {
  const int64_t columns = width / patch;
  const int64_t token_size = patch * patch * channels;
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t y = 0; y < height; ++y) {
        for (int64_t column = 0; column < columns; ++column) {
          const int64_t pixel =
              ((n * channels + c) * height + y) * width + column * patch;
          const int64_t token =
              (n * (height / patch) + y / patch) * columns + column;
          f(pixel, token * token_size + y % patch * patch * channels + c,
            patch);
        }
      }
    }
  }
}

}  // namespace

Tensor GatherRows(const Tensor& table, const Tensor& indices) {
  CHECK_EQ(table.rank(), 2);
  const int64_t n = indices.num_elements();
  Tensor out = Tensor::Empty(table.device(), {n, table.dim(1)}, table.dtype(),
                             MemoryCategory::kActivations, "embedding");
  if (table.device().dry()) return out;
  const int64_t run = table.dim(1) * DTypeSize(table.dtype());
  const char* from = static_cast<const char*>(table.raw_data());
  char* to = static_cast<char*>(out.raw_data());
  for (int64_t i = 0; i < n; ++i) {
    const int32_t row = indices.data<int32_t>()[i];
    CHECK(row >= 0 && row < table.dim(0))
        << "row " << row << " of a table of " << table.dim(0);
    std::memcpy(to + i * run, from + row * run, run);
  }
  return out;
}

void ScatterAddRows(const Tensor& rows, const Tensor& indices,
                    const Tensor& table) {
  CHECK_EQ(rows.dim(-1), table.dim(1));
  CHECK_EQ(rows.num_elements(), indices.num_elements() * table.dim(1));
  if (table.device().dry()) return;
  const int64_t width = table.dim(1);
  DispatchFloating(rows.dtype(), [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    for (int64_t i = 0; i < indices.num_elements(); ++i) {
      const int32_t row = indices.data<int32_t>()[i];
      CHECK(row >= 0 && row < table.dim(0));
      const T* from = rows.data<T>() + i * width;
      C* to = table.data<C>() + row * width;
      for (int64_t j = 0; j < width; ++j) to[j] += static_cast<C>(from[j]);
    }
  });
}

Tensor TimestepEmbedding(const Tensor& times, int64_t channels,
                         double max_period, DType dtype) {
  CHECK_EQ(channels % 2, 0);
  const int64_t n = times.num_elements();
  const int64_t half = channels / 2;
  Tensor out = Tensor::Empty(times.device(), {n, channels}, dtype,
                             MemoryCategory::kActivations, "time embedding");
  if (times.device().dry()) return out;
  DispatchFloating(times.dtype(), [&](auto time_element) {
    using Time = decltype(time_element);
    DispatchFloating(dtype, [&](auto element) {
      using T = decltype(element);
      for (int64_t i = 0; i < n; ++i) {
        const double time = static_cast<double>(times.data<Time>()[i]);
        T* row = out.data<T>() + i * channels;
        for (int64_t k = 0; k < half; ++k) {
          const double angle =
              time * std::pow(max_period, -static_cast<double>(k) /
                                              static_cast<double>(half));
          row[k] = static_cast<T>(static_cast<ComputeType<T>>(std::cos(angle)));
          row[half + k] =
              static_cast<T>(static_cast<ComputeType<T>>(std::sin(angle)));
        }
      }
    });
  });
  return out;
}

Tensor Patchify(const Tensor& x, int64_t patch) {
  CHECK_EQ(x.rank(), 4);
  const int64_t batch = x.dim(0), channels = x.dim(1);
  const int64_t height = x.dim(2), width = x.dim(3);
  CHECK(height % patch == 0 && width % patch == 0)
      << x.shape() << " in patches of " << patch;
  Tensor tokens = Tensor::Empty(
      x.device(),
      {batch, height / patch * (width / patch), patch * patch * channels},
      x.dtype(), MemoryCategory::kActivations, "patches");
  if (x.device().dry()) return tokens;
  DispatchFloating(x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* pixels = x.data<T>();
    T* to = tokens.data<T>();
    ForEachPatchRow(batch, channels, height, width, patch,
                    [&](int64_t pixel, int64_t token, int64_t run) {
                      for (int64_t i = 0; i < run; ++i) {
                        to[token + i * channels] = pixels[pixel + i];
                      }
                    });
  });
  return tokens;
}

Tensor Unpatchify(const Tensor& tokens, int64_t patch, int64_t channels,
                  int64_t height, int64_t width) {
  const int64_t batch = tokens.dim(0);
  CHECK_EQ(tokens.num_elements(), batch * channels * height * width);
  Tensor x =
      Tensor::Empty(tokens.device(), {batch, channels, height, width},
                    tokens.dtype(), MemoryCategory::kActivations, "pictures");
  if (tokens.device().dry()) return x;
  DispatchFloating(tokens.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* from = tokens.data<T>();
    T* pixels = x.data<T>();
    ForEachPatchRow(batch, channels, height, width, patch,
                    [&](int64_t pixel, int64_t token, int64_t run) {
                      for (int64_t i = 0; i < run; ++i) {
                        pixels[pixel + i] = from[token + i * channels];
                      }
                    });
  });
  return x;
}

}  // namespace trireme
