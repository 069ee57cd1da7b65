// Who sees to it that parameters are there when they are used: the hook for
// whatever keeps them elsewhere (other ranks, later the host).
//
// A model calls Acquire before it runs the layers of a unit and Release after,
// in forward and again in backward (BeginUnit and EndUnit in functional.h).

#ifndef TRIREME_PARALLEL_PARAMETER_RESIDENCY_H_
#define TRIREME_PARALLEL_PARAMETER_RESIDENCY_H_

namespace trireme {

enum class PassDirection { kForward, kBackward };

class ParameterResidency {
 public:
  virtual ~ParameterResidency() = default;

  // Blocks until the unit's parameters are whole on this rank; may fetch ahead
  // the unit that comes next in this direction.
  virtual void Acquire(int unit, PassDirection direction) = 0;
  // The unit is not used until the next Acquire.
  virtual void Release(int unit) = 0;
  // The end of a chunk's forward or backward: nothing is in use until the next
  // one, for which something may stay.
  virtual void ReleaseAll() = 0;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_PARAMETER_RESIDENCY_H_
