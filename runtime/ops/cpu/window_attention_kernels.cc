#include "runtime/ops/cpu/window_attention_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace trireme {
namespace {

constexpr double kMaxLogScale = 4.605170185988092;  // log 100
// Of the norms that vectors are divided by.
constexpr double kLeastNorm = 1e-12;
constexpr double kBiasRange = 16;

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

template <typename T>
double BiasOf(const WindowAttentionArguments& a, int64_t head,
              int64_t difference) {
  return static_cast<double>(
      static_cast<const T*>(a.biases)[difference * a.heads + head]);
}

// A head of the windows, one of them at a time.
template <typename T>
class HeadOfWindows {
 public:
  using C = ComputeType<T>;

  // `biases`: room for those of all differences.
  HeadOfWindows(const WindowAttentionArguments& a, int64_t head, C* biases)
      : a_(a), head_(head), n_(a.places()), d_(a.head_dim), biases_(biases) {
    for (int64_t i = 0; i < a.differences(); ++i) {
      biases[i] = static_cast<C>(kBiasRange * Sigmoid(BiasOf<T>(a, head, i)));
    }
    log_scale_ = static_cast<double>(static_cast<const T*>(a.log_scales)[head]);
    scale_ = static_cast<C>(std::exp(std::min(log_scale_, kMaxLogScale)));
  }

  void MoveTo(int64_t window) {
    const int64_t across = a_.width / a_.window;
    const int64_t down = a_.height / a_.window;
    sample_ = window / (down * across);
    row_ = window / across % down;
    column_ = window % across;
  }

  C scale() const { return scale_; }
  bool scale_learns() const { return log_scale_ <= kMaxLogScale; }

  int64_t TokenOf(int64_t place) const {
    const int64_t y =
        (row_ * a_.window + place / a_.window + a_.shift) % a_.height;
    const int64_t x =
        (column_ * a_.window + place % a_.window + a_.shift) % a_.width;
    return (sample_ * a_.height + y) * a_.width + x;
  }

  // Places of the same end of the picture, where a window holds both.
  bool Sees(int64_t i, int64_t j) const {
    if (a_.shift == 0) return true;
    const int64_t first = a_.window - a_.shift;
    if (row_ == a_.height / a_.window - 1 &&
        (i / a_.window >= first) != (j / a_.window >= first)) {
      return false;
    }
    return column_ != a_.width / a_.window - 1 ||
           (i % a_.window >= first) == (j % a_.window >= first);
  }

  int64_t DifferenceOf(int64_t i, int64_t j) const {
    const int64_t span = 2 * a_.window - 1;
    return (i / a_.window - j / a_.window + a_.window - 1) * span +
           i % a_.window - j % a_.window + a_.window - 1;
  }

  // Part 0 to 2 of qkv: q, k, v. Of an output or its gradient `parts` is 1.
  int64_t Offset(int64_t place, int64_t part, int64_t parts) const {
    return (TokenOf(place) * parts + part) * a_.heads * d_ + head_ * d_;
  }

  // The vectors of a part, [n, d].
  void Load(const void* from, int64_t part, int64_t parts, C* to) const {
    for (int64_t i = 0; i < n_; ++i) {
      const T* row = static_cast<const T*>(from) + Offset(i, part, parts);
      for (int64_t c = 0; c < d_; ++c) to[i * d_ + c] = static_cast<C>(row[c]);
    }
  }
  // Divides each by its norm; writes what it was multiplied by.
  void Normalize(C* vectors, C* factors) const {
    for (int64_t i = 0; i < n_; ++i) {
      double squares = 0;
      C* const v = vectors + i * d_;
      for (int64_t c = 0; c < d_; ++c)
        squares += static_cast<double>(v[c]) * v[c];
      factors[i] = static_cast<C>(1 / std::max(std::sqrt(squares), kLeastNorm));
      for (int64_t c = 0; c < d_; ++c) v[c] *= factors[i];
    }
  }

  // The probabilities of row i, from normalised q and k.
  void Probabilities(int64_t i, const C* q, const C* k, C* row) const {
    C highest = -std::numeric_limits<C>::infinity();
    for (int64_t j = 0; j < n_; ++j) {
      if (!Sees(i, j)) {
        row[j] = -std::numeric_limits<C>::infinity();
        continue;
      }
      row[j] =
          scale_ * Dot(q + i * d_, k + j * d_) + biases_[DifferenceOf(i, j)];
      highest = std::max(highest, row[j]);
    }
    C sum = 0;
    for (int64_t j = 0; j < n_; ++j) {
      row[j] = std::exp(row[j] - highest);
      sum += row[j];
    }
    for (int64_t j = 0; j < n_; ++j) row[j] /= sum;
  }

  // Of d channels, in sums that one instruction adds to.
  C Dot(const C* a, const C* b) const {
    constexpr int64_t kLanes = 8;
    C lanes[kLanes] = {};
    int64_t c = 0;
    for (; c + kLanes <= d_; c += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        lanes[lane] += a[c + lane] * b[c + lane];
      }
    }
    C sum = 0;
    for (; c < d_; ++c) sum += a[c] * b[c];
    for (const C lane : lanes) sum += lane;
    return sum;
  }

  // to += factor·from, of d channels.
  void Add(C factor, const C* from, C* to) const {
    for (int64_t c = 0; c < d_; ++c) to[c] += factor * from[c];
  }

 private:
  const WindowAttentionArguments& a_;
  const int64_t head_;
  const int64_t n_;
  const int64_t d_;
  const C* const biases_;
  double log_scale_;
  C scale_;
  int64_t sample_ = 0;
  int64_t row_ = 0;
  int64_t column_ = 0;
};

// Calls f(head, first window, end, task) for each task, on all threads.
template <typename F>
void ForEachTask(const WindowAttentionArguments& a, F&& f) {
#pragma omp parallel for schedule(static)
  for (int64_t task = 0; task < a.tasks(); ++task) {
    const int64_t group = task / a.heads;
    f(task % a.heads, a.FirstWindowOf(group), a.FirstWindowOf(group + 1), task);
  }
}

template <typename T>
void Store(const ComputeType<T>* from, int64_t n, T* to) {
  for (int64_t c = 0; c < n; ++c) to[c] = static_cast<T>(from[c]);
}

// A task's gradients of its windows.
template <typename T>
class HeadGradients {
 public:
  using C = ComputeType<T>;

  HeadGradients(const WindowAttentionArguments& a,
                const WindowAttentionGradients& gradients, int64_t head,
                C* scratch, double* sums)
      : a_(a),
        gradients_(gradients),
        n_(a.places()),
        d_(a.head_dim),
        probabilities_(scratch),
        slopes_(scratch + n_ * n_),
        q_(slopes_ + n_ * n_),
        k_(q_ + n_ * d_),
        v_(k_ + n_ * d_),
        dy_(v_ + n_ * d_),
        q_factors_(dy_ + n_ * d_),
        k_factors_(q_factors_ + n_),
        row_(k_factors_ + n_),
        head_(a, head, row_ + d_),
        sums_(sums) {}

  void AddWindow(int64_t window) {
    head_.MoveTo(window);
    head_.Load(a_.qkv, 0, 3, q_);
    head_.Load(a_.qkv, 1, 3, k_);
    head_.Load(a_.qkv, 2, 3, v_);
    head_.Load(gradients_.out, 0, 1, dy_);
    head_.Normalize(q_, q_factors_);
    head_.Normalize(k_, k_factors_);
    for (int64_t i = 0; i < n_; ++i) FindSlopes(i);
    for (int64_t i = 0; i < n_; ++i) {
      StoreNormalized(i, 0, q_, q_factors_, [&](int64_t j) {
        head_.Add(slopes_[i * n_ + j], k_ + j * d_, row_);
      });
      StoreNormalized(i, 1, k_, k_factors_, [&](int64_t j) {
        head_.Add(slopes_[j * n_ + i], q_ + j * d_, row_);
      });
      std::fill(row_, row_ + d_, C(0));
      for (int64_t j = 0; j < n_; ++j) {
        head_.Add(probabilities_[j * n_ + i], dy_ + j * d_, row_);
      }
      StoreRow(i, 2);
    }
  }

 private:
  // Of row i's scores: their gradients go into the sums, and those of the
  // cosines into slopes_.
  void FindSlopes(int64_t i) {
    C* const p = probabilities_ + i * n_;
    C* const slope = slopes_ + i * n_;
    head_.Probabilities(i, q_, k_, p);
    C mean = 0;
    for (int64_t j = 0; j < n_; ++j) {
      slope[j] = head_.Dot(dy_ + i * d_, v_ + j * d_);
      mean += p[j] * slope[j];
    }
    for (int64_t j = 0; j < n_; ++j) {
      const C of_score = p[j] * (slope[j] - mean);
      const int64_t difference = head_.DifferenceOf(i, j);
      sums_[difference] += static_cast<double>(of_score);
      slope[j] = of_score * head_.scale();
      if (head_.scale_learns()) {
        sums_[a_.differences()] +=
            static_cast<double>(slope[j]) *
            static_cast<double>(head_.Dot(q_ + i * d_, k_ + j * d_));
      }
    }
  }

  // From the gradient of a vector's direction, a sum of what `add(j)` adds to
  // row_, to that of the vector.
  template <typename Add>
  void StoreNormalized(int64_t i, int64_t part, const C* directions,
                       const C* factors, Add&& add) {
    std::fill(row_, row_ + d_, C(0));
    for (int64_t j = 0; j < n_; ++j) add(j);
    const C* const direction = directions + i * d_;
    // A vector that was too short has no direction to leave out.
    const bool short_vector = factors[i] >= static_cast<C>(1 / kLeastNorm);
    const C along = short_vector ? C(0) : head_.Dot(direction, row_);
    for (int64_t c = 0; c < d_; ++c) {
      row_[c] = factors[i] * (row_[c] - along * direction[c]);
    }
    StoreRow(i, part);
  }

  void StoreRow(int64_t i, int64_t part) {
    Store<T>(row_, d_,
             static_cast<T*>(gradients_.qkv) + head_.Offset(i, part, 3));
  }

  const WindowAttentionArguments& a_;
  const WindowAttentionGradients& gradients_;
  const int64_t n_;
  const int64_t d_;
  C* const probabilities_;
  C* const slopes_;
  C* const q_;
  C* const k_;
  C* const v_;
  C* const dy_;
  C* const q_factors_;
  C* const k_factors_;
  C* const row_;
  HeadOfWindows<T> head_;
  double* const sums_;
};

}  // namespace

void WindowAttentionForwardKernel(const WindowAttentionArguments& a, void* out,
                                  void* scratch) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    const int64_t n = a.places(), d = a.head_dim;
    ForEachTask(a, [&](int64_t head, int64_t first, int64_t end, int64_t task) {
      C* const q = static_cast<C*>(scratch) + task * a.forward_scratch();
      C* const k = q + n * d;
      C* const v = k + n * d;
      C* const row = v + n * d;
      C* const sum = row + n;
      HeadOfWindows<T> windows(a, head, sum + d);
      for (int64_t window = first; window < end; ++window) {
        windows.MoveTo(window);
        windows.Load(a.qkv, 0, 3, q);
        windows.Load(a.qkv, 1, 3, k);
        windows.Load(a.qkv, 2, 3, v);
        windows.Normalize(q, row);
        windows.Normalize(k, row);
        for (int64_t i = 0; i < n; ++i) {
          windows.Probabilities(i, q, k, row);
          std::fill(sum, sum + d, C(0));
          for (int64_t j = 0; j < n; ++j) windows.Add(row[j], v + j * d, sum);
          Store<T>(sum, d, static_cast<T*>(out) + windows.Offset(i, 0, 1));
        }
      }
    });
  });
}

void WindowAttentionBackwardKernel(const WindowAttentionArguments& a,
                                   const WindowAttentionGradients& gradients,
                                   void* scratch, double* sums) {
  const int64_t rows = a.differences() + 1;
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    ForEachTask(a, [&](int64_t head, int64_t first, int64_t end, int64_t task) {
      double* const of_task = sums + task * rows;
      std::fill(of_task, of_task + rows, 0.0);
      HeadGradients<T> of_head(
          a, gradients, head,
          static_cast<C*>(scratch) + task * a.backward_scratch(), of_task);
      for (int64_t window = first; window < end; ++window) {
        of_head.AddWindow(window);
      }
    });
    for (int64_t head = 0; head < a.heads; ++head) {
      for (int64_t row = 0; row < rows; ++row) {
        double sum = 0;
        for (int64_t group = 0; group < a.groups(); ++group) {
          sum += sums[(group * a.heads + head) * rows + row];
        }
        if (row == a.differences()) {
          static_cast<C*>(gradients.log_scales)[head] = static_cast<C>(sum);
          continue;
        }
        const double sigmoid = Sigmoid(BiasOf<T>(a, head, row));
        static_cast<T*>(gradients.biases)[row * a.heads + head] =
            static_cast<T>(
                static_cast<C>(kBiasRange * sigmoid * (1 - sigmoid) * sum));
      }
    }
  });
}

}  // namespace trireme
