//! The memory and the tables of a guest: wasmtime asks here before they grow.

use wasmtime::ResourceLimiter;

use super::GuestState;

/// Elements of all tables: `QuickJS` needs 7,700.
const MOST_TABLE_ELEMENTS: usize = 20_000;

impl ResourceLimiter for GuestState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.shared.max_memory + self.spare_memory {
            self.is_memory_denied = true;
            self.last_growth = (0, 0);
            return Ok(false);
        }
        self.last_growth = (total - self.memory, 0);
        self.memory = total;
        self.peak_memory = self.peak_memory.max(total);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        if self.table_elements.saturating_add(growth) > MOST_TABLE_ELEMENTS {
            return Ok(false);
        }
        self.last_growth = (0, growth);
        self.table_elements += growth;
        Ok(true)
    }

    /// It was allowed here, and is above the memory's own maximum.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory -= std::mem::take(&mut self.last_growth.0);
        Ok(())
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.table_elements -= std::mem::take(&mut self.last_growth.1);
        Ok(())
    }
}
