//! A table of objects by index, in which a stale name is noticed.

/// Objects in slots. A slot is used again after its object is gone, with another generation.
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// Indices of the empty slots.
    free: Vec<u32>,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab::new()
    }
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Slab { slots: Vec::new(), free: Vec::new() }
    }

    /// Number of objects.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds an object; returns its index and generation.
    pub(crate) fn insert(&mut self, value: T) -> (u32, u32) {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return (index, slot.generation);
        }
        self.slots.push(Slot { generation: 0, value: Some(value) });
        (self.slots.len() as u32 - 1, 0)
    }

    /// Takes an object out; its slot is free afterwards.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slots.get_mut(index as usize)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.value.as_mut()
    }

    /// The generation of the object in a slot.
    pub(crate) fn generation(&self, index: u32) -> Option<u32> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref().map(|_| slot.generation)
    }

    /// Index of the object that `index` and `generation` name, if it is still there.
    pub(crate) fn check(&self, index: usize, generation: u32) -> Option<u32> {
        let index = u32::try_from(index).ok()?;
        (self.generation(index)? == generation).then_some(index)
    }

    /// Every object with its index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let with_index = |(index, slot): (usize, _)| Some((index as u32, Slot::value(slot)?));
        self.slots.iter().enumerate().filter_map(with_index)
    }
}

impl<T> Slot<T> {
    fn value(slot: &Slot<T>) -> Option<&T> {
        slot.value.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_reused_under_another_generation() {
        let mut slab = Slab::new();
        let (first, generation) = slab.insert('a');
        assert_eq!(slab.check(first as usize, generation), Some(first));
        assert_eq!(slab.remove(first), Some('a'));
        assert_eq!(slab.remove(first), None);
        assert_eq!((slab.len(), slab.generation(first)), (0, None));
        let (second, newer) = slab.insert('b');
        assert_eq!(first, second);
        assert_ne!(generation, newer);
        assert_eq!(slab.check(first as usize, generation), None);
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(first, &'b')]);
    }
}
